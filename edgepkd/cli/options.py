"""Options that several verbs have."""

FPS_HELP = ("Frame rate of image sequences and of raw streams that name none; default: 25, or what"
            " the stream says.")
