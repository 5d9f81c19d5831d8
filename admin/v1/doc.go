// Package adminv1 is the admin API in Go, generated from admin.proto: messages,
// clients and the interfaces of the servers.
package adminv1
