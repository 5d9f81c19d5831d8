// Package cli is the command line as a client of the admin API: each command is
// a question or a wish that the server answers. Nothing is decided here that the
// server does not decide too.
//
// Data goes to standard output, notes to standard error. Where objects are
// printed, -o says how; what -o yaml prints, apply takes again.
package cli
