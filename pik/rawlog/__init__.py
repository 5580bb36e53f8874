"""The format of raw: segments of frames, the sealed records beside them, and selecting what a window needs."""
