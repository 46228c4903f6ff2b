"""Threads: pin the calling thread to cores, and set its priority. Knows no processor."""
