"""The panels: Qt widgets that show a review and call the core."""
