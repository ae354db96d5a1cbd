"""Why a display under a cell shows nothing more, or nothing live, in words."""

from koubou_panel.views.language import later

KERNEL_ENDED = later(
    "This was shown by a kernel that has ended. Run the cell again to see how it stands now."
)
WAS_SHUT_DOWN = later("The workshop that was shown here was shut down.")
FAILED = later("This could not be shown live; the log of the kernel says more.")
NOT_LOADED = later("This could not be shown live: its code does not load.")
MOVES = later("In JupyterLab and Notebook 7 (with pyviz_comms) this is live while its kernel runs.")
AS_IT_STOOD = later("As it stood at {moment}.")
READY = later("Koubou Panel is ready: a Workshop, a task or a future at the end of a cell shows itself live.")
NO_LABEXTENSION = later(
    "Displays stay still: JupyterLab has no `@pyviz/jupyterlab_pyviz`, which feeds them. Where JupyterLab itself is "
    "installed, run `pip install pyviz_comms`, then start it again and reload the page."
)
SWITCHED_OFF = later(
    "Displays stay still: the extension `@pyviz/jupyterlab_pyviz` is switched off. Run "
    "`jupyter labextension enable @pyviz/jupyterlab_pyviz`, then reload the page."
)
SHUT = later("Workshop at {place}, shut down")
NOT_KNOWN = later("Task {task}: not known to {place}")
REFUSED = later("Task {task} was not submitted: {why}")
SUBMIT_AGAIN = later("There is no such task: submit it again when that is mended.")
