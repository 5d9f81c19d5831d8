//go:build !unix

package listen

// descriptorsForConnections returns how many connections clients may have open.
func descriptorsForConnections() int64 { return 1 << 20 }
