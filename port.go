package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// explainListen adds to an error of opening a listener on addr what to do
// about it. flag is the one that chose addr. What failed otherwise, such as a key
// file that must not be read, it leaves as it is.
func explainListen(err error, flag, addr string) error {
	var listen *net.OpError
	switch {
	case !errors.As(err, &listen):
		return err
	case errors.Is(err, syscall.EADDRINUSE):
		holder := "another process"
		if _, port, splitErr := net.SplitHostPort(addr); splitErr == nil {
			if name := portHolder(port); name != "" {
				holder = name
			}
		}
		return fmt.Errorf("%w: %s holds it; end that, or choose another address with %s", err, holder, flag)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 need the right CAP_NET_BIND_SERVICE; grant it, or choose another address with %s", err, flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: no interface of this machine has that address; choose another with %s", err, flag)
	}
	return err
}

// portHolder names the process that listens on a TCP port, such as
// `nginx (process 812)`, and is "" when that cannot be seen: on a system
// without /proc, or for a process of another user.
func portHolder(port string) string {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return ""
	}
	var sockets []string
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		sockets = append(sockets, listeners(table, number)...)
	}
	if len(sockets) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !slices.Contains(sockets, target) {
			continue
		}
		process := filepath.Dir(filepath.Dir(fd))
		comm, _ := os.ReadFile(filepath.Join(process, "comm"))
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(comm)), filepath.Base(process))
	}
	return ""
}

// listeners returns the sockets of a table that listen on port, as the links
// under /proc/PID/fd name them. See proc(5), /proc/net/tcp.
func listeners(table string, port uint64) []string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	const stateListen = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	var sockets []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] == stateListen {
			sockets = append(sockets, "socket:["+fields[9]+"]")
		}
	}
	return sockets
}
