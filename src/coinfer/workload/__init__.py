"""What is asked of the machine: scenarios, arrival processes and inputs.

Pure and seeded: nothing here reads a clock, starts a thread or knows an inference library.
"""
