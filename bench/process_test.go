package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

func TestParseResidentReadsVmRSS(t *testing.T) {
	status := "Name:\tnginx\nVmPeak:\t   70000 kB\nVmHWM:\t    9000 kB\nVmRSS:\t    8452 kB\nRssAnon:\t    4000 kB\n"
	tests := []struct {
		name   string
		status string
		want   int64
		fails  bool
	}{
		{name: "a worker", status: status, want: 8452 << 10},
		{name: "a kernel thread has none", status: "Name:\tkthreadd\n", fails: true},
		{name: "another unit", status: "VmRSS: 3 MB\n", fails: true},
		{name: "no number", status: "VmRSS: x kB\n", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseResident([]byte(tt.status))
			if (err != nil) != tt.fails || got != tt.want {
				t.Errorf("parseResident = %d, %v, want %d, error %v", got, err, tt.want, tt.fails)
			}
		})
	}
}

func TestParseStatSurvivesNames(t *testing.T) {
	tests := []struct {
		name, line  string
		pid, parent int
		fails       bool
	}{
		{name: "plain", line: "5125 (python3) R 5117 5117 2293 0 -1", pid: 5125, parent: 5117},
		{name: "spaces and parentheses", line: "7 (a) R 9 (b)) S 3 7 7", pid: 7, parent: 3},
		{name: "no name", line: "7 R 3", fails: true},
		{name: "cut short", line: "7 (a) R", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pid, parent, err := parseStat([]byte(tt.line))
			if (err != nil) != tt.fails || pid != tt.pid || parent != tt.parent {
				t.Errorf("parseStat = %d, %d, %v, want %d, %d, error %v", pid, parent, err, tt.pid, tt.parent, tt.fails)
			}
		})
	}
}

func TestDescendantsFollowsGrandchildren(t *testing.T) {
	parents := map[int]int{1: 0, 10: 1, 11: 10, 12: 10, 20: 12, 30: 1}
	got := descendants(10, parents)
	slices.Sort(got)
	if want := []int{10, 11, 12, 20}; !slices.Equal(got, want) {
		t.Errorf("descendants = %v, want %v", got, want)
	}
}

func TestProcessClockCountsNanoseconds(t *testing.T) {
	before, err := processClock(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 3*time.Millisecond; {
	}
	after, err := processClock(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if used := after - before; used <= 0 || used > time.Second {
		t.Errorf("3 ms of spinning count as %v", used)
	}
	if _, err := processClock(1 << 22); err == nil { // above the kernel's highest pid
		t.Error("a process that does not exist has a clock")
	}
}

func TestLauncherKillsWhatAChildForked(t *testing.T) {
	l := &launcher{dir: t.TempDir()}
	p, err := l.start(command{name: "shell", argv: []string{"/bin/sh", "-c", "sleep 60 & wait"}, cpu: 0})
	if err != nil {
		t.Fatal(err)
	}
	for range 500 { // the shell needs a moment to fork
		if err := p.settle(); err != nil {
			t.Fatal(err)
		}
		if len(p.pids) == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond) // allow:sleep
	}
	if len(p.pids) != 2 {
		t.Fatalf("processes %v, want the shell and its sleep", p.pids)
	}
	l.killAll()
	if !p.ended() {
		t.Error("the shell still runs")
	}
	for range 500 {
		if !runs(t, p.pids[1]) {
			return
		}
		time.Sleep(10 * time.Millisecond) // allow:sleep
	}
	t.Error("the forked sleep still runs")
}

// runs says whether a process is there and no zombie: whoever adopted it may
// take its time to reap it.
func runs(t *testing.T, pid int) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(line, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z"))
}

func TestProcessWaitEndsWithItsContext(t *testing.T) {
	l := &launcher{dir: t.TempDir()}
	p, err := l.start(command{name: "sleep", argv: []string{"/bin/sleep", "60"}, cpu: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.wait(ctx, 0); err == nil || !p.ended() {
		t.Errorf("wait = %v, ended %v, want an error and a dead process", err, p.ended())
	}
}
