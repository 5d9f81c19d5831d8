// Package schema knows the methods of backends by their descriptors: where they come
// from (reflection, upload, .proto files), and what is derived from them.
//
// Descriptors come from peers and are not trusted: what they may make us allocate or
// compute is bounded before it happens, and a file that does not fit leaves the rest
// usable.
package schema
