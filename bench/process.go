package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// launcher starts every child of the benchmark and knows all of them, so that
// none survives it.
//
// It belongs to the main goroutine, which is locked to the main thread: the
// kernel sends a child's parent-death signal when the *thread* that forked it
// ends, and a child inherits the affinity of that thread.
type launcher struct {
	dir      string // log files of the children
	children []*process
}

// process is one child, with the processes that it forked itself.
type process struct {
	name string
	cmd  *exec.Cmd
	end  syscall.Signal
	log  string        // path of its standard output and error
	done chan struct{} // closed when it has ended
	err  error         // why it ended; read after done

	// pids is the child and its descendants, as settle found them.
	pids []int
}

// command is what it takes to start a child.
type command struct {
	name string
	argv []string
	env  []string // added to the benchmark's own
	cpu  int      // the only core it may run on; negative means any

	// end is the signal that ends it, also sent when the benchmark itself is
	// killed. Zero means SIGKILL; a program that forks workers wants one that
	// it hands on to them.
	end syscall.Signal

	stdin, stdout *os.File // nil: nothing in, and out to the log file
	mute          bool     // its output, but for errors, goes nowhere
}

// start runs c in a process group of its own: Ctrl-C reaches the benchmark
// only, which then ends its children in order.
func (l *launcher) start(c command) (*process, error) {
	log, err := os.CreateTemp(l.dir, c.name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(c.argv[0], c.argv[1:]...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, log, log
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	if c.mute {
		cmd.Stdout = nil
	}
	if c.end == 0 {
		c.end = syscall.SIGKILL
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: c.end}
	if err := startPinned(cmd, c.cpu); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	p := &process{name: c.name, cmd: cmd, end: c.end, log: log.Name(), done: make(chan struct{})}
	p.pids = []int{cmd.Process.Pid}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	l.children = append(l.children, p)
	return p, nil
}

// startPinned narrows the affinity of the calling thread for the length of the
// fork. The runtime does not clone new threads from a locked one, so that no
// thread of the benchmark inherits it.
func startPinned(cmd *exec.Cmd, cpu int) error {
	if cpu < 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return fmt.Errorf("read affinity: %w", err)
	}
	only.Set(cpu)
	if err := unix.SchedSetaffinity(0, &only); err != nil {
		return fmt.Errorf("pin to core %d: %w", cpu, err)
	}
	err := cmd.Start()
	return errors.Join(err, unix.SchedSetaffinity(0, &before))
}

// killAll ends every child and waits until all are gone.
func (l *launcher) killAll() {
	for _, p := range l.children {
		p.kill()
	}
	l.children = nil
}

// kill ends the process and whatever it forked: by its own signal, so that it
// collects its workers, and the whole group by SIGKILL if that takes long.
func (p *process) kill() {
	const patience = 2 * time.Second
	if p.ended() {
		return
	}
	_ = p.cmd.Process.Signal(p.end) // gone since is as good
	select {
	case <-p.done:
	case <-time.After(patience):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // no group left is as good
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait returns how the process ended, and kills it when it takes longer than d
// or ctx is done.
func (p *process) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		p.kill()
		return ctx.Err()
	case <-time.After(d):
		p.kill()
		return fmt.Errorf("not done after %v", d)
	}
}

// complain is an error with the last lines that the process wrote.
func (p *process) complain(err error) error {
	said, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(said)), "\n")
	lines = lines[max(0, len(lines)-5):]
	return fmt.Errorf("%s: %w\n\t%s", p.name, err, strings.Join(lines, "\n\t"))
}

// settle looks up the processes that p has forked so far.
func (p *process) settle() error {
	parents, err := readParents("/proc")
	if err != nil {
		return err
	}
	p.pids = descendants(p.cmd.Process.Pid, parents)
	return nil
}

// cpuTime is what all threads of the process and its descendants have used, the
// ended ones included, to the nanosecond. (/proc/PID/schedstat would tell it
// of one thread, and /proc/PID/stat in ticks of 10 ms.)
func (p *process) cpuTime() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range p.pids {
		d, err := processClock(pid)
		if err != nil {
			return 0, fmt.Errorf("read CPU time of %s (pid %d): %w", p.name, pid, err)
		}
		sum += d
	}
	return sum, nil
}

// processClock reads the CPU-time clock of another process. The clock's number
// is made as clock_getcpuclockid(3) makes it: the complement of the pid above
// three bits, of which 2 stands for scheduler time.
func processClock(pid int) (time.Duration, error) {
	const schedClock = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, err
	}
	return time.Duration(ts.Nano()), nil
}

// resident is the resident memory of the process and its descendants, in bytes.
func (p *process) resident() (int64, error) {
	var sum int64
	for _, pid := range p.pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		rss, err := parseResident(status)
		if err != nil {
			return 0, fmt.Errorf("read memory of %s (pid %d): %w", p.name, pid, err)
		}
		sum += rss
	}
	return sum, nil
}

// parseResident finds VmRSS in /proc/PID/status. Its "kB" are 1024 bytes.
func parseResident(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte("VmRSS:"))
		if !ok {
			continue
		}
		number, ok := bytes.CutSuffix(bytes.TrimSpace(rest), []byte(" kB"))
		if !ok {
			return 0, fmt.Errorf("line %q: want a number of kB", bytes.TrimSpace(line))
		}
		kb, err := strconv.ParseInt(string(number), 10, 64)
		return kb << 10, err
	}
	return 0, errors.New("no VmRSS line")
}

// readParents maps each process to its parent.
func readParents(proc string) (map[int]int, error) {
	stats, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	if err != nil {
		return nil, err
	}
	parents := make(map[int]int, len(stats))
	for _, file := range stats {
		line, err := os.ReadFile(file)
		if err != nil {
			continue // ended since
		}
		pid, parent, err := parseStat(line)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		parents[pid] = parent
	}
	return parents, nil
}

// parseStat takes the process and its parent from /proc/PID/stat. The second
// field is the program's name in parentheses, with any byte in it, so that
// only the last ")" ends it.
func parseStat(line []byte) (pid, parent int, err error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return 0, 0, fmt.Errorf("line %q: no (name)", line)
	}
	rest := bytes.Fields(line[end+1:])
	if len(rest) < 2 {
		return 0, 0, fmt.Errorf("line %q: want a state and a parent", line)
	}
	pid, err1 := strconv.Atoi(string(bytes.TrimSpace(line[:open])))
	parent, err2 := strconv.Atoi(string(rest[1]))
	return pid, parent, errors.Join(err1, err2)
}

// descendants is root and every process below it.
func descendants(root int, parents map[int]int) []int {
	found := []int{root}
	for i := 0; i < len(found); i++ {
		for pid, parent := range parents {
			if parent == found[i] {
				found = append(found, pid)
			}
		}
	}
	return found
}
