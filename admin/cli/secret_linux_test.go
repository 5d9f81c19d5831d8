package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// newTerminal is a terminal, and the person before it.
func newTerminal(t *testing.T) (terminal, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal, person
}

func isEchoing(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// typist answers each question with the next line.
type typist struct {
	person  *os.File
	answers []string
	mu      sync.Mutex
	heard   strings.Builder
}

func (p *typist) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard.Write(b)
	if strings.HasSuffix(string(b), ": ") && len(p.answers) > 0 {
		fmt.Fprintf(p.person, "%s\n", p.answers[0])
		p.answers = p.answers[1:]
	}
	return len(b), nil
}

func TestPasswordIsAskedForTwice(t *testing.T) {
	tests := []struct {
		name    string
		answers []string
		want    string
		err     string
	}{
		{"the same", []string{"correct horse", "correct horse"}, "correct horse", ""},
		{"not the same", []string{"correct horse", "battery staple"}, "", "the two passwords differ; nothing was changed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			terminal, person := newTerminal(t)
			notes := &typist{person: person, answers: test.answers}
			c := &call{ctx: t.Context(), in: terminal, notes: notes}
			got, err := c.newPassword("")
			if got != test.want || fmt.Sprint(err) != test.err && (err != nil || test.err != "") {
				t.Errorf("got %q, %v, want %q, %s", got, err, test.want, test.err)
			}
			if heard := notes.heard.String(); heard != "New password: \nOnce more: \n" {
				t.Errorf("it said %q", heard)
			}
			if !isEchoing(t, terminal) {
				t.Error("the terminal does not show what is typed any more")
			}
		})
	}
}

func TestPromptThatIsInterruptedLeavesTheTerminalAsItWas(t *testing.T) {
	terminal, person := newTerminal(t)
	ctx, interrupt := context.WithCancel(t.Context())
	c := &call{ctx: ctx, in: terminal, notes: new(strings.Builder)}
	ended := make(chan error, 1)
	go func() {
		_, err := c.newPassword("")
		ended <- err
	}()
	for isEchoing(t, terminal) { // until the question is asked
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
		}
	}
	interrupt()
	if err := <-ended; err == nil || err.Error() != "interrupted; nothing was changed" {
		t.Errorf("got %v", err)
	}
	if !isEchoing(t, terminal) {
		t.Error("the terminal does not show what is typed any more")
	}
	fmt.Fprintln(person) // ends the read, which in a program its end does
}
