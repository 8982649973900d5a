"""What a generated video is measured by: torchmetrics classes, each with its controls."""
