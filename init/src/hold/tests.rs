//! What is decided, told as stories and checked over any order of events.
