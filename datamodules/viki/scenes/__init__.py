"""Pictures of VIKI's scenes: MuJoCo kitchens with the real robots' meshes, rendered without a display."""
