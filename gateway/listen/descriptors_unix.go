//go:build unix

package listen

import "syscall"

// descriptorsForConnections returns how many connections clients may have open:
// what the process may open, less an eighth and 64 for connections to backends,
// peers, the admin port, and files. The runtime has raised the soft limit to
// the hard one.
func descriptorsForConnections() int64 {
	const enough = 1 << 20
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > enough {
		return enough
	}
	return connectionsWithin(int64(limit.Cur))
}

func connectionsWithin(descriptors int64) int64 {
	return max(descriptors-descriptors/8-64, descriptors/2)
}
