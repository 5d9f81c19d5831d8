// Package admin is the operator's door: is the process alive, is it ready, what
// does it measure.
//
// It says nothing of its own: the parts of the program are handed to it by main.
// It must keep answering while the gateway drains, so its life is longer than the
// gateway's: main ends the context of Run when the gateway has ended.
package admin
