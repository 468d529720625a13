"""Videos that lie as folders of pictures, one file a frame."""

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")


def is_picture(name: str) -> bool:
    """Return whether a file's name ends as a picture's."""
    return name.lower().endswith(PICTURE_ENDINGS)
