// Package observe is what the outside may know of RPCs: how many began and ended,
// by route, rule, backend and code, how long they took, and how many there were of
// late.
//
// A Series is resolved when a rule is compiled, never per RPC; counting is then four
// atomic adds. Labels come from the configuration alone, so
// no client can make a new one, and every code of a series is there, at zero, from
// the start.
//
// What contends first at 32 cores: a series of which all RPCs are, say that of the
// only busy route. Its counters sit on three cache lines: one that every start
// writes, one that every end writes (twice, one after the other), and one for each
// decade or so of durations. The line of the ends goes first. A line passes between
// cores some ten million times a second, an order of magnitude more than there are
// RPCs for it; past that, each series would need its counters once per core, added
// up when somebody looks.
package observe
