// Package admin is the operator's door: is the process alive, is it ready, what does
// it measure; and the admin API, by which everything is read and changed that the
// node keeps (package adminv1 is its contract).
//
// A request goes one way. The port, or the socket, takes it; the guard of access
// finds out whom it comes from and refuses what that one may not do; the router tells
// the API from health, metrics and profiles; what the API may take of a request is
// bounded by ServeHTTP of api; the interceptors keep the book and translate errors;
// a service does it. Services read snapshots of the store and write transactions;
// what the gateway makes of them they wait for and show.
//
// The package knows no gateway and no engine: main hands it both as interfaces of
// its own. It must keep answering while the gateway drains, so its life is longer than
// the gateway's: main ends the context of Run when the gateway has ended.
package admin
