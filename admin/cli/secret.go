package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxSecret bounds the file of a token or a password, in bytes.
const maxSecret = 4096

// readSecret reads the first line of a file, - meaning standard input.
func readSecret(what, file string, stdin io.Reader) (string, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", what, err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read %s from %s: %w", what, file, err)
	}
	secret, _, _ := strings.Cut(string(text), "\n")
	secret = strings.TrimSuffix(secret, "\r")
	switch {
	case len(text) > maxSecret:
		return "", fmt.Errorf("read %s from %s: more than %d bytes, limit %[3]d", what, file, maxSecret)
	case secret == "":
		return "", fmt.Errorf("read %s from %s: the first line is empty", what, file)
	}
	return secret, nil
}

// terminal is standard input when somebody types there.
func (c *call) terminal() (*os.File, bool) {
	file, ok := c.in.(*os.File)
	return file, ok && term.IsTerminal(int(file.Fd()))
}

// newPassword asks twice at a terminal; elsewhere it reads one line.
func (c *call) newPassword(file string) (string, error) {
	if file != "" {
		return readSecret("password", file, c.in)
	}
	terminal, ok := c.terminal()
	if !ok {
		return readSecret("password", "-", c.in)
	}
	first, err := c.prompt(terminal, "New password: ")
	if err != nil {
		return "", err
	}
	second, err := c.prompt(terminal, "Once more: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two passwords differ; nothing was changed")
	}
	return first, nil
}

// prompt reads a line that does not show. When it is interrupted, the terminal shows
// again what is typed; the read itself ends with the process, which is then at hand.
func (c *call) prompt(terminal *os.File, question string) (string, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	fmt.Fprint(c.notes, question)
	defer fmt.Fprintln(c.notes)

	type answer struct {
		line []byte
		err  error
	}
	typed := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		typed <- answer{line, err}
	}()
	select {
	case <-c.ctx.Done():
		return "", errors.Join(errors.New("interrupted; nothing was changed"), term.Restore(fd, before))
	case a := <-typed:
		if a.err != nil {
			return "", fmt.Errorf("read from the terminal: %w", a.err)
		}
		return string(a.line), nil
	}
}
