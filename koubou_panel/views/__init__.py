"""What is seen: pages built from a mirror with Panel and Bokeh. They are handed a shop and never make one."""
