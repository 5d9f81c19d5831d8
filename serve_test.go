package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"sluice/demo"
	shopv1 "sluice/demo/shop/v1"
)

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// output collects what a command writes and lets a test wait for a part of it.
type output struct {
	mu      sync.Mutex // guards the fields below
	text    strings.Builder
	changed chan struct{} // closed at the next write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await returns the groups of the first match of pattern.
func (o *output) await(t *testing.T, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	for {
		o.mu.Lock()
		text, changed := o.text.String(), o.changed
		o.mu.Unlock()
		if match := re.FindStringSubmatch(text); match != nil {
			return match
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no %q after %s in:\n%s", pattern, patience, text)
		}
	}
}

// server is a `sluice serve` that runs inside the test.
type server struct {
	listen, admin string
	log           *output
	cancel        context.CancelFunc
	done          chan int // the exit code
}

// startServer returns once the node serves. It is ended with the test.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &server{log: newOutput(), cancel: cancel, done: make(chan int, 1)}
	args = append([]string{
		"serve", "--config", os.DevNull, "--data-dir", t.TempDir(),
		"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
	}, args...)
	go func() {
		s.done <- exitCode(run(ctx, args, io.Discard, s.log), s.log)
	}()
	t.Cleanup(func() { s.end(t) })
	serving := s.log.await(t, `msg=serving listen=(\S+) admin=(\S+)`)
	s.listen, s.admin = serving[1], serving[2]
	return s
}

// end stops the server and wants it to end well; a second call does nothing.
func (s *server) end(t *testing.T) {
	t.Helper()
	s.cancel()
	select {
	case code, open := <-s.done:
		if open && code != 0 {
			t.Errorf("serve exited %d:\n%s", code, s.log)
		}
		if open {
			close(s.done)
		}
	case <-time.After(patience):
		t.Errorf("serve still runs %s after it was told to end:\n%s", patience, s.log)
	}
}

func (s *server) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	reply, err := http.Get("http://" + s.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

// dial returns a client's connection, which is closed with the test.
func (s *server) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+s.listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// who asks for a cart and returns the version that answered.
func (s *server) who(t *testing.T) string {
	t.Helper()
	conn := s.dial(t)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := shopv1.NewCartClient(conn).Get(ctx, &shopv1.GetRequest{Id: "1"})
	if err != nil {
		t.Fatalf("get a cart: %v", err)
	}
	return reply.GetServedBy()
}

// startShop runs versions of the example service until the test ends.
func startShop(t *testing.T, versions ...string) *demo.Backends {
	t.Helper()
	backends, err := demo.NewBackends(versions...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- backends.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return backends
}

// toShop is a file of resources with one version of the example service.
func toShop(t *testing.T, backends *demo.Backends, version string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resources.yaml")
	rewrite(t, file, backends, version)
	return file
}

func rewrite(t *testing.T, file string, backends *demo.Backends, version string) {
	t.Helper()
	text := strings.Replace(manifest("cart"), "127.0.0.1:50051", backends.Addr(version), 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestServeAnswersAndEnds(t *testing.T) {
	shop := startShop(t, "v1")
	s := startServer(t, "--resources", toShop(t, shop, "v1"))
	if got := s.who(t); got != "v1" {
		t.Errorf("served by %q, want v1", got)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := s.get(t, path); status != http.StatusOK {
			t.Errorf("%s: %d %q, want 200", path, status, body)
		}
	}
	s.end(t)
	if _, err := net.DialTimeout("tcp", s.listen, time.Second); err == nil {
		t.Errorf("%s still answers after the end", s.listen)
	}
}

func TestServeDrainsAndSaysSo(t *testing.T) {
	shop := startShop(t, "v1")
	s := startServer(t, "--resources", toShop(t, shop, "v1"))
	conn := s.dial(t)
	till, err := shopv1.NewCartClient(conn).Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	scan := func(want uint64) {
		t.Helper()
		if err := till.Send(&shopv1.ScanRequest{Item: &shopv1.Item{Quantity: 1, Price: 7}}); err != nil {
			t.Fatal(err)
		}
		if reply, err := till.Recv(); err != nil || reply.GetTotal() != want {
			t.Fatalf("total %d, error %v, want %d", reply.GetTotal(), err, want)
		}
	}
	scan(7)
	s.cancel()
	s.log.await(t, "draining")
	if status, body := s.get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
		t.Errorf("readyz while draining: %d %q, want 503 and the reason", status, body)
	}
	if status, _ := s.get(t, "/healthz"); status != http.StatusOK {
		t.Errorf("healthz while draining: %d, want 200", status)
	}
	scan(14) // a stream that was open goes on
	if err := till.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := till.Recv(); err != io.EOF {
		t.Errorf("the stream ended with %v, want io.EOF", err)
	}
	s.end(t)
}

func TestServeReadsChangedResources(t *testing.T) {
	shop := startShop(t, "v1", "v2")
	file := toShop(t, shop, "v1")
	s := startServer(t, "--resources", file)
	rewrite(t, file, shop, "v2")
	s.log.await(t, `(?s)resources applied.*resources applied`)
	if got := s.who(t); got != "v2" {
		t.Errorf("served by %q, want v2", got)
	}
}

// Neither the port of RPCs nor that of operators is an endpoint, however it is spelled.
func TestServeIsNoEndpointOfItself(t *testing.T) {
	shop := startShop(t, "v1")
	file := toShop(t, shop, "v1")
	s := startServer(t, "--resources", file)
	for _, own := range []string{s.listen, s.admin} {
		address := strings.Replace(own, "127.0.0.1", "localhost", 1)
		if err := os.WriteFile(file, []byte(strings.Replace(manifest("cart"), "127.0.0.1:50051", address, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		conn := s.dial(t)
		var err error
		for range 600 { // until the file is read
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err = shopv1.NewCartClient(conn).Get(ctx, &shopv1.GetRequest{Id: "1"})
			cancel()
			if strings.Contains(s.log.String(), address+`\" leads to `+own) {
				break
			}
			<-time.After(50 * time.Millisecond)
		}
		if status.Code(err) != codes.Unavailable || !strings.Contains(s.log.String(), address+`\" leads to `+own+": the endpoint is this gateway itself") {
			t.Errorf("an endpoint at %s: error %v, log\n%s", address, err, s.log)
		}
	}
}

func TestServeReadsResourcesOnHangup(t *testing.T) {
	shop := startShop(t, "v1")
	s := startServer(t, "--resources", toShop(t, shop, "v1"))
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.log.await(t, `(?s)resources applied.*resources applied`)
}

func TestServeRefusesToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("kind: Nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	holder := fmt.Sprintf("sluice.test (process %d) holds it; end that, or choose another address with ", os.Getpid())
	tests := []struct {
		name string
		args []string
		want []string
	}{
		{"the port is taken", []string{"--listen", taken.Addr().String()}, []string{"sluice: ", taken.Addr().String(), "address already in use", holder + "--listen"}},
		{"the operator's port is taken", []string{"--admin", taken.Addr().String()}, []string{"sluice: ", "address already in use", holder + "--admin"}},
		{"an address of another machine", []string{"--listen", "192.0.2.1:0"}, []string{"no interface of this machine has that address"}},
		{"faults in the resources", []string{"--resources", bad}, []string{bad + ":1:", "sluice: 2 faults in the resources; nothing was applied"}},
		{"no data directory", []string{"--data-dir", bad}, []string{"not a directory; choose another data directory with --data-dir"}},
	}
	for _, test := range tests {
		args := append([]string{
			"serve", "--config", os.DevNull, "--data-dir", t.TempDir(),
			"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		}, test.args...)
		stdout, stderr, code := invoke(t.Context(), args...)
		if code != 1 || stdout != "" {
			t.Errorf("%s: exit %d, stdout %q, want 1 and nothing", test.name, code, stdout)
		}
		for _, want := range test.want {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: stderr %q, want %q in it", test.name, stderr, want)
			}
		}
	}
}
