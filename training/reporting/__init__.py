"""What a run shows and writes: lines, TensorBoard, curves, pictures, records, warnings."""
