"""The dashboard for `panel serve`, over the running workshop of the home.

    panel serve apps/dashboard.py --port 8080 --address 127.0.0.1 --plugins koubou_panel.servers.plugin

`koubou up` serves the same page by itself.
"""

from koubou_panel.servers.plugin import page

page().servable()
