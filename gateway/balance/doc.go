// Package balance picks one node of a set for each RPC.
//
// It knows what a node carries now (its open streams), what it was given (its
// weight) and whether it can be reached, and nothing of connections, addresses or
// routes. A picker belongs to one table of routes and is made anew with the next
// one; nodes, and the streams counted on them, outlive it.
//
// Nothing here takes a lock. What contends first at 32 cores is a node's count of
// streams, one cache line that every pick and every end of an RPC writes: two
// nodes are two lines for the whole machine. Under round robin it is the picker's
// one counter, before the nodes. P2C over many nodes writes only the line of the
// node it chose.
package balance
