// The cards of a page. Each draws what its Python half sends and sends back what is clicked, nothing more.
// A new card: a module of its own beside this one, and its name here; `views/cards.py` has the Python halves.

import {AttentionStrip} from "./attention.js"
import {TopBar} from "./bar.js"
import {ChartHead, ChartSegments} from "./charts.js"
import {live} from "./language.js"
import {LogTailCard, LogsCard} from "./logs.js"
import {OutputCard} from "./output.js"
import {FirstMinute, RunningCard, TileRow} from "./overview.js"
import {RunCard} from "./run.js"
import {ScriptsCard} from "./scripts.js"
import {ServicesCard} from "./services.js"
import {SettingsCard} from "./settings.js"
import {StreamCard} from "./stream.js"
import {CoresCard, SystemCard, UseCard} from "./system.js"
import {InputCard, TaskCard} from "./task.js"
import {TasksCard} from "./tasks.js"
import {ViewerCard} from "./viewer.js"
import {WorkersCard} from "./workers.js"

const cards = {
  AttentionStrip,
  ChartHead,
  ChartSegments,
  CoresCard,
  FirstMinute,
  InputCard,
  LogTailCard,
  LogsCard,
  OutputCard,
  RunCard,
  RunningCard,
  ScriptsCard,
  ServicesCard,
  SettingsCard,
  StreamCard,
  SystemCard,
  TaskCard,
  TasksCard,
  TileRow,
  TopBar,
  ViewerCard,
  UseCard,
  WorkersCard,
}

export default Object.fromEntries(Object.entries(cards).map(([name, card]) => [name, live(card)]))
