package upstream

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	// askTimeout is how long a server may take for one question.
	askTimeout = 2 * time.Second
	// askTwice is how often each server is asked: packets get lost.
	askTwice = 2
	// maxForeign is how many packets are looked at that are no reply: somebody guesses.
	maxForeign = 1000
)

// nameClient asks name servers.
type nameClient struct {
	messages messages
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	conf     string        // file with the name servers of the machine
	patience time.Duration // with one server and one question
}

func newNameClient() *nameClient {
	var d net.Dialer
	return &nameClient{messages: miekg{}, dial: d.DialContext, conf: "/etc/resolv.conf", patience: askTimeout}
}

// servers are whom to ask: one that is named, or those of the machine, as its file says
// at this moment.
func (c *nameClient) servers(named string) (nameServers, error) {
	if named != "" {
		return nameServers{servers: []string{named}}, nil
	}
	text, err := readRegular(c.conf)
	if err != nil {
		return nameServers{}, fmt.Errorf("finding the name servers: %w", err)
	}
	n, err := readServers(string(text))
	if err != nil {
		return n, fmt.Errorf("finding the name servers in %q: %w", c.conf, err)
	}
	return n, nil
}

// ask puts a question to one server after the other, until one answers.
func (c *nameClient) ask(ctx context.Context, servers []string, q question) (reply, error) {
	var last error
	for range askTwice {
		for _, server := range servers {
			r, err := c.askOne(ctx, server, q)
			if err == nil {
				return r, nil
			}
			if ctx.Err() != nil {
				return reply{}, fmt.Errorf("no answer from %s in time", server)
			}
			last = err
		}
	}
	return reply{}, last
}

// askOne asks by UDP, and by TCP when the reply does not fit.
func (c *nameClient) askOne(ctx context.Context, server string, q question) (reply, error) {
	r, err := c.exchange(ctx, "udp", server, q, true)
	if errors.Is(err, errFormat) { // it may not know of extensions
		r, err = c.exchange(ctx, "udp", server, q, false)
	}
	if err == nil && r.truncated {
		if r, err = c.exchange(ctx, "tcp", server, q, true); err == nil && r.truncated {
			err = errors.New("the reply is cut short")
		}
	}
	return r, err
}

// exchange sends one question and waits for its reply.
func (c *nameClient) exchange(ctx context.Context, network, server string, q question, extended bool) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	conn, err := c.dial(ctx, network, server)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	id, err := newID()
	if err != nil {
		return reply{}, err
	}
	out, err := c.messages.write(id, q, extended)
	if err != nil {
		return reply{}, err
	}
	if network == "tcp" {
		return c.overTCP(conn, out, id, q)
	}
	return c.overUDP(conn, out, id, q)
}

// newID is one that nobody can guess.
func newID() (uint16, error) {
	var b [2]byte
	_, err := rand.Read(b[:])
	return binary.BigEndian.Uint16(b[:]), err
}

// overUDP waits for the reply among whatever packets come: what does not fit the question
// was perhaps sent by somebody who wants to be believed.
func (c *nameClient) overUDP(conn net.Conn, out []byte, id uint16, q question) (reply, error) {
	if _, err := conn.Write(out); err != nil {
		return reply{}, err
	}
	var in [maxUDP]byte
	for range maxForeign {
		n, err := conn.Read(in[:])
		if err != nil {
			return reply{}, noAnswer(conn, err)
		}
		r, err := c.messages.read(in[:n], id, q)
		if !errors.Is(err, errForeign) {
			return r, err
		}
	}
	return reply{}, fmt.Errorf("%d packets from %s are no reply to the question", maxForeign, conn.RemoteAddr())
}

// overTCP has the length before each message, RFC 1035 section 4.2.2: 65,535 bytes at
// most.
func (c *nameClient) overTCP(conn net.Conn, out []byte, id uint16, q question) (reply, error) {
	out = append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(out)), uint16(len(out))), out...)
	if _, err := conn.Write(out); err != nil {
		return reply{}, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return reply{}, noAnswer(conn, err)
	}
	in := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, in); err != nil {
		return reply{}, noAnswer(conn, err)
	}
	return c.messages.read(in, id, q)
}

// noAnswer says of whom none came, without the ports of this one question, which would
// make each failure another one.
func noAnswer(conn net.Conn, err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("no answer from %s in time", conn.RemoteAddr())
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("no answer from %s: %w", conn.RemoteAddr(), err)
}
