package h2

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
)

// transportEcho answers what arrives, in the way of the engine.
func transportEcho(t *Transport) error {
	var b readBuffer
	defer b.release()
	for {
		if err := t.fill(&b); err != nil {
			return err
		}
		if err := transportWriteAll(t, b.bytes()); err != nil {
			return err
		}
		b.consume(len(b.bytes()))
	}
}

// plainEcho answers what arrives, in the simplest way there is.
func plainEcho(nc net.Conn) error {
	b := make([]byte, readBufferSize)
	for {
		n, err := nc.Read(b)
		if err != nil {
			return err
		}
		if _, err := nc.Write(b[:n]); err != nil {
			return err
		}
	}
}

// BenchmarkTransportPingPong sends 128 bytes to and fro, one at a time, and
// reports the processor time of both ends together, beside that of the same
// with a plain connection at the answering end.
func BenchmarkTransportPingPong(b *testing.B) {
	for _, bench := range []struct {
		name string
		tls  bool
		echo func(t *Transport) error
	}{
		{"plain", false, func(t *Transport) error { return plainEcho(t.nc) }},
		{"transport", false, transportEcho},
		{"plain-tls", true, func(t *Transport) error { return plainEcho(t) }},
		{"transport-tls", true, transportEcho},
	} {
		b.Run(bench.name, func(b *testing.B) {
			client, server := transportEnds(b, bench.tls, false, false)
			ended := make(chan error, 1)
			go func() { ended <- bench.echo(server) }()
			p := make([]byte, 128)
			before := processorTime(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.Write(p); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(client, p); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
			client.Close()
			if err := <-ended; !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkTransportBulk moves 64 KiB at a time in one direction.
func BenchmarkTransportBulk(b *testing.B) {
	for _, bench := range []struct {
		name string
		tls  bool
	}{{"clear", false}, {"tls", true}} {
		b.Run(bench.name, func(b *testing.B) {
			client, server := transportEnds(b, bench.tls, false, false)
			ended := make(chan error, 1)
			go func() {
				var buf readBuffer
				defer buf.release()
				for {
					if err := server.fill(&buf); err != nil {
						ended <- err
						return
					}
					buf.consume(len(buf.bytes()))
				}
			}()
			p := make([]byte, 64<<10)
			before := processorTime(b)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for b.Loop() {
				if err := transportWriteAll(client, p); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
			client.Close()
			<-ended
		})
	}
}

// processorTime returns the processor time that this process has used, in
// nanoseconds.
func processorTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
