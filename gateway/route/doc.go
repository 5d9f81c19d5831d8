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
// A table is made from the one before it. A route that both sets have, by its
// pointer, keeps its rules, and of the maps and lists only those change that a new
// route or an old one is in: one change among ten thousand routes copies two maps.
// The turn of a rule whose route has changed goes on as long as its shares are the
// same: they stay exact across a reload.
//
// Before the turns come pins and sticky keys: Choose. Explain comes to the result of
// a lookup in another way, by trying every match in order, and says why.
package route
