// Package adminv1 is the admin API in Go, generated from admin.proto: messages,
// clients and the interfaces of the servers.
package adminv1

import _ "embed"

// Proto is the text that the API is generated from, for clients that have no part
// in this program.
//
//go:embed admin.proto
var Proto string
