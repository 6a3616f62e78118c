"""The bundle `NAME.edgepkd/`: what the device needs, in one folder that is whole or absent."""
