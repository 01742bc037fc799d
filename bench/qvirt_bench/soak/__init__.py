"""`make soak`: guests come and go for an hour, everything is used and cut off, our components are restarted; nothing may grow."""
