package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// relayMain is the program behind the rows "tcprelay" and "tcpcopy": accept,
// dial the next backend, copy bytes both ways. It knows nothing of HTTP/2 and
// balances connections, so that it is the floor for a proxy written in Go.
func relayMain(args []string) error {
	flags := flag.NewFlagSet("relay", flag.ContinueOnError)
	listen := flags.String("listen", "", "host:port")
	backends := flags.String("backends", "", "host:port,host:port")
	splice := flags.Bool("splice", true, "let io.Copy use splice(2), else pass the bytes through user space")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	to := strings.Split(*backends, ",")
	for i := 0; ; i++ {
		down, err := ln.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go relay(down, to[i%len(to)], *splice)
	}
}

// relay copies until either side is done, then closes both.
func relay(down net.Conn, backend string, splice bool) {
	defer down.Close()
	up, err := net.Dial("tcp", backend)
	if err != nil {
		return
	}
	defer up.Close()
	var both sync.WaitGroup
	both.Go(func() { copyHalf(up, down, splice) })
	both.Go(func() { copyHalf(down, up, splice) })
	both.Wait()
}

// copyHalf copies one direction and passes its end on.
func copyHalf(to, from net.Conn, splice bool) {
	if splice {
		io.Copy(to, from)
	} else {
		// Neither side shows that it is a TCP connection: nothing is left
		// but to read and to write.
		io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
	}
	if t, ok := to.(*net.TCPConn); ok {
		t.CloseWrite()
	}
}
