package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// holdMain opens many connections to one proxy and keeps them idle. It is a
// process of its own, one for each proxy, because a process may not have enough
// file descriptors for all. It says "open" when all stand; when it is told
// "check" it pings each and says "alive"; it ends with its input.
func holdMain(args []string) error {
	flags := flag.NewFlagSet("hold", flag.ContinueOnError)
	addr := flags.String("addr", "", "host:port of the proxy")
	conns := flags.Int("conns", 0, "connections")
	rpc := flags.Bool("rpc", false, "make one RPC on each before it is idle")
	cert := flags.String("cert", "", "TLS, trusting this certificate")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var trust *tls.Config
	if *cert != "" {
		var err error
		if trust, err = trustIn(*cert); err != nil {
			return err
		}
	}
	clients, err := open(*addr, *conns, *rpc, trust)
	if err != nil {
		return err
	}
	fmt.Println("open")
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		if err := each(len(clients), func(i int) error { return clients[i].ping() }); err != nil {
			return fmt.Errorf("ping idle connection: %w", err)
		}
		fmt.Println("alive")
	}
	for _, c := range clients {
		c.close()
	}
	return nil
}

func open(addr string, conns int, rpc bool, trust *tls.Config) ([]*client, error) {
	clients := make([]*client, conns)
	return clients, each(conns, func(i int) error {
		c, err := dial(addr, trust)
		if err != nil {
			return err
		}
		clients[i] = c
		if rpc {
			_, err = c.unary(addr)
		}
		return err
	})
}

// each calls f with 0 to n-1, some calls at a time: fewer than the shortest
// accept queue (nginx: 511).
func each(n int, f func(int) error) error {
	const atATime = 32
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, atATime)
	for w := range atATime {
		wg.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// holder is the benchmark's end of such a process.
type holder struct {
	ctx    context.Context
	p      *process
	orders *os.File // its standard input
	says   *os.File // its standard output
}

// hold starts a holder. Its connections are open when await("open") returns.
func (b *bench) hold(args ...string) (*holder, error) {
	in, orders, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	says, out, err := os.Pipe()
	if err != nil {
		orders.Close()
		return nil, err
	}
	defer out.Close()
	argv := append([]string{b.self, "hold"}, args...)
	p, err := b.launch.start(command{name: "hold", argv: argv, cpu: b.loadCPU, stdin: in, stdout: out})
	h := &holder{ctx: b.ctx, p: p, orders: orders, says: says}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// await reads the holder's next word.
func (h *holder) await(word string) error {
	h.says.SetReadDeadline(time.Now().Add(holdTimeout))
	defer context.AfterFunc(h.ctx, func() { h.says.SetReadDeadline(time.Now()) })()
	// One word at a time is all that it ever says.
	buf := make([]byte, 16)
	n, err := h.says.Read(buf)
	switch got := strings.TrimSpace(string(buf[:n])); {
	case got == word:
		return nil
	case errors.Is(err, io.EOF):
		return h.p.complain(errors.New("ended before it was told to"))
	case err != nil:
		return h.p.complain(err)
	default:
		return fmt.Errorf("hold: said %q, want %q", got, word)
	}
}

// holdTimeout bounds the opening of all connections, TLS handshakes included,
// and their pings.
const holdTimeout = 3 * time.Minute

// check pings every connection.
func (h *holder) check() error {
	if _, err := io.WriteString(h.orders, "check\n"); err != nil {
		return h.p.complain(err)
	}
	return h.await("alive")
}

func (h *holder) close() {
	h.orders.Close()
	if h.p != nil {
		h.p.wait(context.Background(), 10*time.Second)
	}
	h.says.Close()
}
