package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	adminv1 "sluice/admin/v1"
)

// The account of the password file, and the name of the systemd credential (see
// systemd.exec(5), LoadCredential=) that is read where no file is given.
const (
	fileAccount    = "admin"
	credentialName = "sluice-admin-password"
)

// passwordFile is the file to read, or empty.
func passwordFile(configured string, getenv func(string) string) string {
	if configured != "" {
		return configured
	}
	dir := getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return ""
	}
	file := filepath.Join(dir, credentialName)
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// readPassword returns what a file says, without the end of its line.
func readPassword(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read admin password: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPassword+3))
	if err != nil {
		return "", fmt.Errorf("read admin password: %w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if err := checkPassword(fileAccount, password); err != nil {
		return "", fmt.Errorf("read admin password from %s: %w", file, err)
	}
	return password, nil
}

// applyPasswordFile makes the account of the file. Of an account that is there it
// changes the password when the file says another than when it was last read: so
// a change of the file counts, and so does one that was made since by the API.
func (a *Access) applyPasswordFile(ctx context.Context) error {
	file := passwordFile(a.cfg.PasswordFile, os.Getenv)
	if file == "" {
		return nil
	}
	password, err := readPassword(file)
	if err != nil {
		return err
	}
	var old *account
	err = a.records.View(func(tx RecordsTx) error {
		old, err = getAccount(tx, fileAccount)
		return err
	})
	if err != nil {
		return err
	}
	if old != nil && old.FilePassword != "" {
		same, err := a.passwords.verify(ctx, old.FilePassword, password, true)
		if err != nil && !errors.Is(err, errPasswordHash) || same {
			return err
		}
	}
	return a.setFilePassword(ctx, old, password)
}

func (a *Access) setFilePassword(ctx context.Context, old *account, password string) error {
	hash, err := a.passwords.hash(ctx, password, true)
	if err != nil {
		return err
	}
	acc := &account{Name: fileAccount, Created: a.now()}
	action := "create"
	if old != nil {
		kept := *old
		acc, action = &kept, "update"
	}
	acc.Role, acc.Password, acc.FilePassword = adminv1.Role_ROLE_ADMIN, hash, hash
	err = a.records.Update(func(tx RecordsTx) error {
		if err := endSessions(tx, func(s *session) bool { return s.Account == fileAccount }); err != nil {
			return err
		}
		if err := tx.Delete(setUpKey); err != nil { // as createAccount
			return err
		}
		return put(tx, accountKey(fileAccount), acc)
	})
	if err != nil {
		return err
	}
	a.log.Info("administrator set by the password file", "account", fileAccount, "action", action)
	line := &adminv1.AuditEntry{Actor: "password file", Action: "PasswordFile"}
	describeChanges(line, []*adminv1.Change{accountChange(action, old, acc)})
	a.audit.write(line)
	return nil
}
