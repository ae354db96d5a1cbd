// ＋ Run.

import {addressOfPage, go} from "./route.js"

// Opens the dialog: on a `command`, a `prompt`, `script:NAME`, or `again:TASK`; whatever was last used where empty.
export const openRun = (what) => go(addressOfPage(undefined, {run: what || "command"}))
