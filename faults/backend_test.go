package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds whatever a scenario waits for that ought to come at once.
const patience = 20 * time.Second

// backend is a process with one or several endpoints, as a test holds it.
type backend struct {
	t      *testing.T
	config backendConfig

	cmd     *exec.Cmd
	ended   chan struct{} // closed when it has
	in      io.WriteCloser
	out     *json.Decoder
	errors  *bytes.Buffer // read after ended
	stopped bool          // by SIGSTOP
}

// addresses are loopback addresses that this process alone gives out, at a port below
// those of outgoing connections: what ends can come back at the same address.
var addresses = struct {
	sync.Mutex
	network string
	port    int
	last    int
}{network: fmt.Sprintf("127.%d", 64+os.Getpid()%64), port: 20_000 + rand.IntN(10_000)}

func newAddress() string { return addressAt(addresses.port) }

// gatewayAddress has a port of its own: at the gateway's no loopback address may register.
func gatewayAddress() string { return addressAt(addresses.port + 1) }

func addressAt(port int) string {
	addresses.Lock()
	defer addresses.Unlock()
	addresses.last++
	return fmt.Sprintf("%s.%d.%d:%d", addresses.network, addresses.last/250, 1+addresses.last%250, port)
}

// startBackend starts a backend with one endpoint.
func startBackend(t *testing.T, name string) *backend {
	t.Helper()
	return startEndpoints(t, backendConfig{Servers: []serverConfig{{name, newAddress()}}})
}

// startBackends starts n of them, called prefix1 and so on.
func startBackends(t *testing.T, n int, prefix string) []*backend {
	t.Helper()
	all := make([]*backend, n)
	for i := range all {
		all[i] = startBackend(t, fmt.Sprint(prefix, i+1))
	}
	for _, b := range all {
		b.await()
	}
	return all
}

// startEndpoints starts a process; await returns when it is there.
func startEndpoints(t *testing.T, config backendConfig) *backend {
	t.Helper()
	b := &backend{t: t, config: config}
	b.start()
	t.Cleanup(b.kill)
	return b
}

// start begins the process, for the first time or again.
func (b *backend) start() {
	b.t.Helper()
	text, err := json.Marshal(b.config)
	if err != nil {
		b.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	b.cmd = exec.Command(self)
	b.cmd.Env = append(os.Environ(), backendRole+"="+string(text))
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	b.errors = &bytes.Buffer{}
	b.cmd.Stderr = b.errors
	in, err := b.cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.in, b.out, b.stopped = in, json.NewDecoder(out), false
	ended := make(chan struct{})
	b.ended = ended
	cmd := b.cmd
	go func() {
		_ = cmd.Wait() // how it ends is what the scenario does to it
		close(ended)
	}()
}

// await returns once the backend listens.
func (b *backend) await() {
	b.t.Helper()
	b.behave(behaviour{})
}

// ask gives an order and returns what the backend reports.
func (b *backend) ask(o order) report {
	b.t.Helper()
	if err := json.NewEncoder(b.in).Encode(o); err != nil {
		b.t.Fatalf("%s: %v", b.name(), err)
	}
	type answer struct {
		report
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		a.err = b.out.Decode(&a.report)
		answers <- a
	}()
	select {
	case a := <-answers:
		if a.err != nil {
			<-b.ended
			b.t.Fatalf("%s: %v\n%s", b.name(), a.err, b.errors)
		}
		return a.report
	case <-time.After(patience):
		b.t.Fatalf("%s: no report after %v", b.name(), patience)
		return report{}
	}
}

// behave has the backend behave so from now on.
func (b *backend) behave(how behaviour) report {
	b.t.Helper()
	return b.ask(order{Behave: &how})
}

func (b *backend) report() report {
	b.t.Helper()
	return b.ask(order{})
}

// die has the backend kill itself as kill -9 does, and returns what it had seen until
// the moment before.
func (b *backend) die() report {
	b.t.Helper()
	r := b.ask(order{Die: true})
	<-b.ended
	return r
}

// terminate ends the process as a deployment does, by SIGTERM, and waits for its end.
func (b *backend) terminate() {
	b.t.Helper()
	b.signal(syscall.SIGTERM)
	select {
	case <-b.ended:
	case <-time.After(patience):
		b.t.Fatalf("%s: still there %v after SIGTERM", b.name(), patience)
	}
}

func (b *backend) signal(s syscall.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(s); err != nil {
		b.t.Fatalf("%s: %v: %v", b.name(), s, err)
	}
}

// kill ends the process, whatever its state.
func (b *backend) kill() {
	_ = b.cmd.Process.Kill() // gone since is as good
	<-b.ended
}

// name is that of the only endpoint, or the first.
func (b *backend) name() string { return b.config.Servers[0].Name }

func (b *backend) address() string { return b.config.Servers[0].Address }

// endpoints is the list of endpoints of a manifest.
func endpoints(backends ...*backend) string {
	var list []string
	for _, b := range backends {
		for _, s := range b.config.Servers {
			list = append(list, fmt.Sprintf("{address: %q}", s.Address))
		}
	}
	return "[" + strings.Join(list, ", ") + "]"
}
