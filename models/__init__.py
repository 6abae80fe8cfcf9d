"""Networks, the teacher's moving average and the queue of keys: pure torch, for 2D and 3D alike."""
