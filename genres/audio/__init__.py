"""Sound: the gate that lets files in, the decoder, and the feature sets with their kernels. Knows no engine."""
