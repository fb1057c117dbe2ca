"""What a set of scores is worth: accuracy, error rates, retrieval. NumPy alone; knows no file of ours."""
