// Package route finds the rule that an RPC belongs to, and the backend of the rule
// whose turn it is.
//
// A Table is compiled from a store.Set and never changes; a change of the set is
// another Table. Everything is decided at compile time that can be: hostnames,
// services and methods that are compared exactly are keys of maps, and each list
// that is left is in order of precedence, so that the first that matches is the
// right one. A lookup allocates nothing, takes no lock, and costs the same for ten
// routes as for ten thousand. Only header matches and regular expressions are
// tried one by one, among those of the same hostname (and, for headers, of the
// same service and method).
//
// What goes from one table to the next is the turn of each rule that stayed as it
// was: its shares stay exact across a reload.
package route
