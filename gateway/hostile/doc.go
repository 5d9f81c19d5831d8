// Package hostile attacks a whole gateway, as a client and as a backend, and
// looks at what the others notice of it. It holds tests only: each is named after
// an attack, speaks raw frames, and goes red when the limit that ends the attack
// is taken out.
//
// The gateway runs in a process of its own, the test binary started once more, so
// that its memory, its processor time, its descriptors and its goroutines are told
// apart from the attacker's. Tests that judge bytes and not cost have it in their
// own process.
//
// What every attack has to leave intact:
//
//	O1  a bystander: 100 RPCs a second on a connection of its own, none fails, none is late
//	O2  memory: bounded while it lasts, given back when it is over
//	O3  goroutines and descriptors: as before
//	O4  the reason: the attacker's connection ends with the code that belongs to it, and a counter names it
//	O5  the backend: no more than 100 RPCs at once for each client connection
//	O6  processor time: in proportion to what the attack costs its sender
//
// The flag -hostile.long makes the counts those of a real attack.
package hostile
