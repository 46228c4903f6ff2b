"""Serve two networks from asyncio: a future of the engine is awaited like any other."""

import asyncio

import numpy as np

import coinfer
from coinfer.errors import DroppedError


async def camera(engine: coinfer.Engine, frames: int) -> int:
    """Ask for one frame after the other; a frame that would be too late is left out."""
    seen = 0
    for _ in range(frames):
        frame = {"image": np.random.rand(1, 3, 32, 32).astype(np.float32)}
        future = engine.submit("vision", frame, deadline_s=0.5, on_late="drop")
        try:
            await asyncio.wrap_future(future)
            seen += 1
        except DroppedError:
            continue
    return seen


async def users(engine: coinfer.Engine, count: int) -> int:
    """Ask for many at once; they are answered in any order."""
    asked = [
        asyncio.wrap_future(engine.submit("control", {"x": np.ones((1, 16), np.float32)}))
        for _ in range(count)
    ]
    return len(await asyncio.gather(*asked))


async def main() -> None:
    """Run both at the same time. Loading blocks, so it is done in a thread."""
    models = {"vision": "zoo:tiny_cnn", "control": "zoo:tiny_mlp"}
    engine = await asyncio.to_thread(coinfer.Engine, models)
    try:
        frames, answers = await asyncio.gather(camera(engine, 20), users(engine, 50))
        print(f"{frames} frames in time, {answers} users answered")
    finally:
        await asyncio.to_thread(engine.stop)


if __name__ == "__main__":
    asyncio.run(main())
