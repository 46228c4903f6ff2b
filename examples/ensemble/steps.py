"""What lies between the models of spots.yaml."""

import numpy as np

CELL = 32


def cut(picture, heat):
    """Cut the cells out in which the detector sees something.

    Args:
        picture: Brightness, float32[1,1,128,128].
        heat: What the detector sees in each cell, float32[1,1,4,4].
    """
    places = np.argwhere(heat[0, 0] > 0.1) * CELL
    crops = [picture[0, :, y : y + CELL, x : x + CELL] for y, x in places]
    return {"crops": np.array(crops, np.float32).reshape(-1, 1, CELL, CELL), "places": places}
