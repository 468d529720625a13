"""Every augmentation at once, for what must hold whatever is on."""

EVERY_AUGMENTATION = {
    "aspect": 1.5, "rotate": 10.0, "shear": 5.0, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "grey": 0.2,
    "window_min": 0.7, "window_max": 1.3, "static": 0.5, "drop_rgb": 0.3, "mixup": 1.0, "cutmix": 1.0, "operations": 2,
    "first_crop": 8, "first_frames": 2,
}  # fmt: skip
"""Fields of AugmentConfig; ``drop_rgb`` acts where clip.input is both."""
