//! Every byte that crosses a boundary of ours.
