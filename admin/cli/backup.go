package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	adminv1 "sluice/admin/v1"
)

// restoreChunk is how much of a backup one message carries, in bytes.
const restoreChunk = 64 << 10

func (p *program) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Save the store to a file while the server runs",
		Long: `Save a consistent copy of the server's store: objects, history, accounts, tokens and
the audit log. The file takes its name when it is whole, and is readable by you alone.
A device or a pipe is written to as it is; - means standard output.`,
		Example: "  sluice backup sluice.backup",
		Args:    wants(1, 1),
		RunE: p.remote(func(c *call, args []string) error {
			if args[0] == "-" {
				_, err := c.backup(c.out)
				return err
			}
			n, err := c.backupTo(args[0])
			if err != nil {
				return err
			}
			c.note("%s: %d bytes", args[0], n)
			return nil
		}),
	}
}

// backupTo replaces what is a file, or will be one, as a whole. What is something
// else is not ours to replace: it is written to.
func (c *call) backupTo(name string) (int64, error) {
	switch info, err := os.Stat(name); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("backup to %s: %w", name, pathCause(err))
	case err != nil:
		return c.replace(name)
	case info.IsDir():
		return 0, fmt.Errorf("backup to %s: it is a directory; give a file in it", name)
	case info.Mode().IsRegular():
		file, err := filepath.EvalSymlinks(name) // a link to it stays one
		if err != nil {
			return 0, fmt.Errorf("backup to %s: %w", name, pathCause(err))
		}
		return c.replace(file)
	}
	// A pipe would else hold us until somebody reads it, whatever the signal.
	f, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return 0, fmt.Errorf("backup to %s: nobody reads it", name)
	case err != nil:
		return 0, fmt.Errorf("backup to %s: %w", name, pathCause(err))
	}
	defer context.AfterFunc(c.ctx, func() { f.SetWriteDeadline(time.Unix(1, 0)) })()
	n, err := c.backup(f)
	if c.ctx.Err() != nil {
		err = fmt.Errorf("backup to %s: interrupted", name)
	}
	return n, errors.Join(err, f.Close())
}

// replace writes beside the file and then puts the new one in its place.
func (c *call) replace(file string) (n int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".sluice-backup-*") // 0600
	if err != nil {
		return 0, fmt.Errorf("backup to %s: %w", file, pathCause(err))
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	n, err = c.backup(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return n, err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return n, fmt.Errorf("backup to %s: %w", file, err)
	}
	return n, nil
}

// backup returns how many bytes were written. It ends without an error only when
// the server said that this was all.
func (c *call) backup(w io.Writer) (int64, error) {
	stream, err := c.node.Backup(c.ctx, connect.NewRequest(&adminv1.BackupRequest{}))
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	var written int64
	for stream.Receive() {
		n, err := w.Write(stream.Msg().GetChunk())
		written += int64(n)
		if err != nil {
			return written, fmt.Errorf("write backup: %w", err)
		}
	}
	return written, stream.Err()
}

func (p *program) restoreCommand() *cobra.Command {
	var w written
	cmd := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "Make the objects those of a backup, while the server runs",
		Long: `Make the routes, backends and policies those of a backup. Whoever watches sees the
changes, and sluice rollback --to takes them back. Accounts and tokens stay as they
are. With --dry-run, check the file and show what would change.`,
		Example: "  sluice restore sluice.backup --dry-run",
		Args:    wants(1, 1),
	}
	w.addReason(cmd)
	w.addDryRun(cmd)
	p.addWait(cmd, &w.peers)
	output := p.addFormat(cmd, true)
	cmd.RunE = p.remote(func(c *call, args []string) error {
		in := c.in
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return openError(args[0], err)
			}
			defer f.Close()
			in = f
		}
		response, err := c.restore(in, args[0], w)
		if err != nil {
			return err
		}
		if w.dryRun {
			return c.printPlan(output, response, "now", "in the backup")
		}
		return c.printWrite(output, response, false)
	})
	return cmd
}

func (c *call) restore(in io.Reader, file string, w written) (*adminv1.WriteResponse, error) {
	stream := c.node.Restore(c.ctx)
	request := &adminv1.RestoreRequest{Reason: w.reason, DryRun: w.dryRun, Wait: w.peers.is}
	chunk := make([]byte, restoreChunk)
	for {
		n, err := io.ReadFull(in, chunk)
		if n > 0 {
			request.Chunk = chunk[:n]
			if stream.Send(request) != nil {
				break // the answer says why
			}
			request = &adminv1.RestoreRequest{}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
	}
	response, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return response.Msg, nil
}
