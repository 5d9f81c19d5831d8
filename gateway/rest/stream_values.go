package rest

import (
	"io"

	"sluice/gateway/wire"
)

// valuesBuffer is how much of a body is read at once, bytes, and how far a buffer may be
// larger than the largest value.
const valuesBuffer = 8 << 10

// values cuts a body into the JSON values that it has one after another, with white space
// or nothing between them. It finds their ends only: whether they are JSON is for others
// to say.
type values struct {
	body  io.Reader
	limit int // of one value, bytes

	buf   []byte // what has been read
	start int    // of the value in it, or of what may be before it
	err   error  // that reading ended with
}

// next returns the next value, valid until the next call. It ends with io.EOF; a value
// beyond the limit is errTooLong, one that is cut off io.ErrUnexpectedEOF.
func (v *values) next() ([]byte, error) {
	if err := v.skipSpace(); err != nil {
		return nil, err
	}
	var c valueEnd
	for size := 0; ; size++ {
		if size > v.limit {
			return nil, errTooLong
		}
		if v.start+size == len(v.buf) {
			if err := v.fill(); err == io.EOF && c.word {
				return v.take(size), nil
			} else if err != nil {
				return nil, noEOF(err)
			}
		}
		switch b := v.buf[v.start+size]; c.step(b) {
		case endsBefore:
			return v.take(size), nil
		case endsWith:
			if size == v.limit {
				return nil, errTooLong
			}
			return v.take(size + 1), nil
		case noValue:
			return nil, refusal(wire.InvalidArgument, "%q begins no JSON value", b)
		}
	}
}

func (v *values) take(size int) []byte {
	value := v.buf[v.start : v.start+size]
	v.start += size
	return value
}

// skipSpace moves to the first byte of a value. Space counts as a value does: of a body
// that is compressed there may be any amount.
func (v *values) skipSpace() error {
	for skipped := 0; ; {
		for ; v.start < len(v.buf); v.start++ {
			if !isSpace(v.buf[v.start]) {
				return nil
			}
			if skipped++; skipped > v.limit {
				return errTooLong
			}
		}
		if err := v.fill(); err != nil {
			return err
		}
	}
}

// fill reads more behind what there is, and drops what has been taken.
func (v *values) fill() error {
	if v.err != nil {
		return v.err
	}
	if v.start > 0 {
		v.buf, v.start = v.buf[:copy(v.buf, v.buf[v.start:])], 0
	}
	if len(v.buf) == cap(v.buf) {
		// A length that a peer chooses is bounded by what it has sent, and by the limit.
		grown := make([]byte, len(v.buf), min(max(2*len(v.buf), valuesBuffer), v.limit+valuesBuffer))
		copy(grown, v.buf)
		v.buf = grown
	}
	n, err := io.ReadAtLeast(v.body, v.buf[len(v.buf):cap(v.buf)], 1)
	v.buf = v.buf[:len(v.buf)+n]
	v.err = err
	if n > 0 {
		return nil
	}
	return err
}

// valueEnd finds the end of one JSON value, byte by byte.
type valueEnd struct {
	depth   int  // objects and arrays that are open
	quoted  bool // within a string
	escaped bool // behind a backslash in it
	word    bool // a number or a name, which ends where something else begins
}

// step is what one byte means to a value.
type step uint8

const (
	goesOn     step = iota
	endsWith        // the byte is the last one
	endsBefore      // the byte before was
	noValue         // no value begins like this
)

func (c *valueEnd) step(b byte) step {
	switch {
	case c.quoted:
		return c.stepQuoted(b)
	case c.word:
		if isSpace(b) || isMark(b) {
			return endsBefore
		}
	case b == '"':
		c.quoted = true
	case b == '{' || b == '[':
		c.depth++
	case c.depth == 0 && isMark(b):
		return noValue
	case b == '}' || b == ']':
		if c.depth--; c.depth == 0 {
			return endsWith
		}
	case c.depth == 0:
		c.word = true
	}
	return goesOn
}

func (c *valueEnd) stepQuoted(b byte) step {
	switch {
	case c.escaped:
		c.escaped = false
	case b == '\\':
		c.escaped = true
	case b == '"':
		c.quoted = false
		if c.depth == 0 {
			return endsWith
		}
	}
	return goesOn
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\r' || b == '\t' }

// isMark tells the bytes that are no part of numbers and names.
func isMark(b byte) bool {
	switch b {
	case '"', '{', '}', '[', ']', ',', ':':
		return true
	}
	return false
}
