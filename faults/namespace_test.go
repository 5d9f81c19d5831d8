package faults

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Machines that a test makes: network namespaces, joined by bridges. All of it is in a
// namespace of its own, in which the test runs once more as a child: the kernel takes
// everything away when the child has ended, however it ends.

const (
	insideVariable = "SLUICE_FAULTS_INSIDE" // this process is the child
	holderRole     = "SLUICE_FAULTS_HOLDER" // makes this binary hold a namespace
	tooLong        = 20 * time.Minute       // for a child
)

// The two networks: callers, backends and operators are on one, gossip is on the other,
// so that a partition of the peers leaves callers alone.
const (
	callersNet = "10.77.0."
	gossipNet  = "10.78.0."
)

// machine is one namespace: the process that holds it does nothing.
type machine struct {
	t      *testing.T
	number int // from 1 to 200
	holder *exec.Cmd
	links  []string // names of its cables, at the side of the bridges
}

// inNetwork runs the test that calls it in a network of its own, and tells whether this
// is the one that is to go on: the child. Where that is not permitted it is skipped.
func inNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		makeNetwork(t)
		return true
	}
	if why := refusedNetwork(); why != "" {
		fmt.Fprintf(os.Stdout, "SKIP    %s | no network namespaces here: %s\n", t.Name(), why)
		t.Skip("no network namespaces here: " + why)
	}
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), tooLong)
	defer cancel()
	child := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.timeout="+tooLong.String(), "-test.v")
	child.Env = append(os.Environ(), insideVariable+"=1", binaryVariable+"="+binary)
	child.SysProcAttr = ownNetwork()
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGQUIT) } // to see where it was
	child.WaitDelay = patience
	out, err := child.CombinedOutput()
	tellOfChild(t, out, err)
	return false
}

// tellOfChild prints the lines of the scenario, and everything when it has failed.
func tellOfChild(t *testing.T, out []byte, err error) {
	t.Helper()
	for line := range strings.Lines(string(out)) {
		for _, verdict := range []string{"PASS  ", "MISS  ", "INVALID", "BROKEN", "  |"} {
			if strings.HasPrefix(line, verdict) {
				fmt.Fprint(os.Stdout, line)
			}
		}
	}
	if err != nil {
		t.Errorf("the test in its own network: %v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("in its own network:\n%s", out)
	}
}

// ownNetwork is for a process in a new network namespace; who is not root is root in a
// user namespace of his own.
func ownNetwork() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// refusedNetwork says why there can be no such network, once.
var refusedNetwork = sync.OnceValue(func() string {
	for _, tool := range []string{"ip", "tc", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err.Error()
		}
	}
	probe := exec.Command("ip", "link", "add", "probe", "type", "bridge")
	probe.SysProcAttr = ownNetwork()
	if said, err := probe.CombinedOutput(); err != nil {
		return fmt.Sprintf("ip link add: %v: %s", err, bytes.TrimSpace(said))
	}
	return ""
})

// makeNetwork makes the bridges. The second one of gossip is for whom a partition
// separates.
func makeNetwork(t *testing.T) {
	t.Helper()
	run(t, "ip link set lo up")
	for _, bridge := range []string{"callers", "gossip", "gossip2"} {
		run(t, "ip link add "+bridge+" type bridge")
		run(t, "ip link set "+bridge+" up")
	}
	run(t, "ip addr add "+callersNet+"250/24 dev callers")
}

// run runs a command, whose words have no spaces.
func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if said, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, said)
	}
}

// playHolder holds a namespace until whoever started it has gone.
func playHolder() error {
	fmt.Println("holding")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// newMachine adds a machine to both networks.
func newMachine(t *testing.T, number int) *machine {
	t.Helper()
	m := &machine{t: t, number: number, holder: exec.Command("/proc/self/exe")}
	m.holder.Env = append(os.Environ(), holderRole+"=1")
	m.holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := m.holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, link := range m.links {
			run(t, "ip link del "+link)
		}
		in.Close()
		_ = m.holder.Wait() // it ends with its input
	})
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	run(t, m.inside("ip link set lo up"))
	m.connect("callers", callersNet)
	m.connect("gossip", gossipNet)
	return m
}

// connect lays a cable from a bridge to this machine.
func (m *machine) connect(bridge, network string) {
	m.t.Helper()
	here, there := fmt.Sprintf("%s%d", bridge[:1], m.number), bridge
	run(m.t, fmt.Sprintf("ip link add %s type veth peer name %s netns %d", here, there, m.holder.Process.Pid))
	run(m.t, fmt.Sprintf("ip link set %s master %s", here, bridge))
	run(m.t, fmt.Sprintf("ip link set %s up", here))
	run(m.t, m.inside(fmt.Sprintf("ip addr add %s%d/24 dev %s", network, m.number, there)))
	run(m.t, m.inside("ip link set "+there+" up"))
	m.links = append(m.links, here)
}

// inside is a command line as it is to be run to be on this machine.
func (m *machine) inside(line string) string {
	return fmt.Sprintf("nsenter --net=%s %s", m.namespace(), line)
}

func (m *machine) namespace() string { return fmt.Sprintf("/proc/%d/ns/net", m.holder.Process.Pid) }

// command is a program on this machine, or where the test is when there is none.
func (m *machine) command(program string, args ...string) *exec.Cmd {
	if m == nil {
		return exec.Command(program, args...)
	}
	return exec.Command("nsenter", append([]string{"--net=" + m.namespace(), program}, args...)...)
}

// dial connects from this machine.
func (m *machine) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if m == nil {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	err = m.do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// do calls what opens sockets, on this machine's network: a thread changes places for
// it. Numeric addresses only: what other goroutines do happens elsewhere.
func (m *machine) do(what func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		back, err := m.enter()
		if err == nil {
			err = what()
			if returned := back(); returned != nil {
				done <- returned
				return // the thread is of no use, and ends with this goroutine
			}
		}
		// The thread has to live on: who was started by it would be killed with it.
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// enter takes the thread to this machine's network; back takes it home.
func (m *machine) enter() (back func() error, err error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	theirs, err := os.Open(m.namespace())
	if err != nil {
		home.Close()
		return nil, err
	}
	defer theirs.Close()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		home.Close()
		return nil, fmt.Errorf("enter %s: %w", theirs.Name(), err)
	}
	return func() error {
		defer home.Close()
		return unix.Setns(int(home.Fd()), unix.CLONE_NEWNET)
	}, nil
}

func (m *machine) callersAddress() string { return fmt.Sprint(callersNet, m.number) }
func (m *machine) gossipAddress() string  { return fmt.Sprint(gossipNet, m.number) }

// apart puts these machines behind a bridge of gossip that has no way to the others.
func apart(machines ...*machine) {
	for _, m := range machines {
		run(m.t, fmt.Sprintf("ip link set g%d master gossip2", m.number))
	}
}

// together puts all of them behind the same one.
func together(machines ...*machine) {
	for _, m := range machines {
		run(m.t, fmt.Sprintf("ip link set g%d master gossip", m.number))
	}
}

// loseUDP drops that part of the UDP packets that come to this machine by gossip's
// network; 100 cuts that way in this direction alone.
//
// It is a program of the packet filter at the cable: IPv4, then UDP, then a random
// number. The kernel's network emulator and iptables are not everywhere.
func (m *machine) loseUDP(percent int) {
	m.t.Helper()
	link := fmt.Sprintf("g%d", m.number)
	_ = exec.Command("tc", "qdisc", "del", "dev", link, "clsact").Run() // there may be none
	if percent == 0 {
		return
	}
	program := fmt.Sprintf("9,"+
		"40 0 0 12,21 0 6 2048,"+ // the frame's type: IPv4
		"48 0 0 23,21 0 4 17,"+ // its protocol: UDP
		"32 0 0 4294963256,148 0 0 100,53 1 0 %d,"+ // a random number modulo 100, of this or more
		"6 0 0 2,6 0 0 4294967295", percent) // drop it, or go on
	run(m.t, "tc qdisc add dev "+link+" clsact")
	if said, err := exec.Command("tc", "filter", "add", "dev", link, "egress", "bpf", "bytecode", program, "da").CombinedOutput(); err != nil {
		m.t.Fatalf("tc filter: %v\n%s", err, said)
	}
}
