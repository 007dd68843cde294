package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	dapr "github.com/dapr/go-sdk/client"
)

// useBlocks is the SDK reading secrets, encrypting, locking, and following configuration.
//
// It prints a line whenever the settings are to be changed: "subscribed" for the key colour, "stopped" once it follows no more.
func useBlocks(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	client, err := dapr.NewClientWithAddressContext(ctx, address)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer client.Close()
	seen := map[string]any{}
	for _, use := range []func(context.Context, dapr.Client, map[string]any) error{
		readSecrets, encrypt, lock, follow,
	} {
		if err := use(ctx, client, seen); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(seen)
}

func readSecrets(ctx context.Context, client dapr.Client, seen map[string]any) error {
	secret, err := client.GetSecret(ctx, "files", "db", nil)
	if err != nil {
		return fmt.Errorf("get secret: %w", err)
	}
	seen["secret"] = secret
	secrets, err := client.GetBulkSecret(ctx, "files", nil)
	if err != nil {
		return fmt.Errorf("get bulk secret: %w", err)
	}
	seen["secrets"] = secrets
	_, err = client.GetSecret(ctx, "files", "private", nil)
	seen["denied"] = fmt.Sprint(err)
	_, err = client.GetSecret(ctx, "files", "ghost", nil)
	seen["noSecret"] = fmt.Sprint(err)
	_, err = client.GetBulkSecret(ctx, "ghost", nil)
	seen["noSecretStore"] = fmt.Sprint(err)
	return nil
}

func encrypt(ctx context.Context, client dapr.Client, seen map[string]any) error {
	document := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	digests := []string{}
	for _, options := range []dapr.EncryptOptions{
		{ComponentName: "vault", KeyName: "rsa.pem", KeyWrapAlgorithm: "RSA-OAEP-256"},
		{ComponentName: "vault", KeyName: "aes", KeyWrapAlgorithm: "A256KW", DataEncryptionCipher: "chacha20-poly1305"},
	} {
		sealed, err := throughVault(client.Encrypt(ctx, bytes.NewReader(document), options))
		if err != nil {
			return fmt.Errorf("encrypt: %w", err)
		}
		if bytes.Contains(sealed, document[:100]) {
			return errors.New("the document is in the clear")
		}
		opened, err := throughVault(client.Decrypt(ctx, bytes.NewReader(sealed), dapr.DecryptOptions{ComponentName: "vault"}))
		if err != nil {
			return fmt.Errorf("decrypt: %w", err)
		}
		digest := sha256.Sum256(opened)
		digests = append(digests, hex.EncodeToString(digest[:]))
		sealed[len(sealed)-1] ^= 1
		_, err = throughVault(client.Decrypt(ctx, bytes.NewReader(sealed), dapr.DecryptOptions{ComponentName: "vault"}))
		seen["changed"] = fmt.Sprint(err)
	}
	seen["opened"] = digests
	unknown := dapr.EncryptOptions{ComponentName: "vault", KeyName: "ghost", KeyWrapAlgorithm: "RSA"}
	_, err := throughVault(client.Encrypt(ctx, bytes.NewReader(document), unknown))
	seen["noKey"] = fmt.Sprint(err)
	return nil
}

// throughVault reads to the end of what Encrypt and Decrypt return.
func throughVault(stream io.Reader, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return io.ReadAll(stream)
}

func lock(ctx context.Context, client dapr.Client, seen map[string]any) error {
	taken := []bool{}
	for _, owner := range []string{"me", "you"} {
		request := &dapr.LockRequest{ResourceID: "go", LockOwner: owner, ExpiryInSeconds: 60}
		answer, err := client.TryLockAlpha1(ctx, "locks", request)
		if err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		taken = append(taken, answer.Success)
	}
	seen["taken"] = taken
	released := []string{}
	for _, owner := range []string{"you", "me", "me"} {
		answer, err := client.UnlockAlpha1(ctx, "locks", &dapr.UnlockRequest{ResourceID: "go", LockOwner: owner})
		if err != nil {
			return fmt.Errorf("unlock: %w", err)
		}
		released = append(released, answer.Status)
	}
	seen["released"] = released
	_, err := client.UnlockAlpha1(ctx, "ghost", &dapr.UnlockRequest{ResourceID: "go", LockOwner: "me"})
	seen["noLockStore"] = fmt.Sprint(err)
	return nil
}

func follow(ctx context.Context, client dapr.Client, seen map[string]any) error {
	items, err := client.GetConfigurationItems(ctx, "settings", []string{"colour", "ghost"})
	if err != nil {
		return fmt.Errorf("get configuration: %w", err)
	}
	seen["items"] = items
	told := make(chan string, 10)
	id, err := client.SubscribeConfigurationItems(ctx, "settings", []string{"colour"},
		func(id string, changed map[string]*dapr.ConfigurationItem) {
			told <- fmt.Sprintf("%s %s %d", changed["colour"].Value, changed["colour"].Version, len(changed))
		})
	if err != nil {
		return fmt.Errorf("subscribe to configuration: %w", err)
	}
	fmt.Println("subscribed")
	select {
	case seen["told"] = <-told:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := client.UnsubscribeConfigurationItems(ctx, "settings", id); err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	seen["again"] = fmt.Sprint(client.UnsubscribeConfigurationItems(ctx, "settings", id))
	fmt.Println("stopped")
	for {
		item, err := client.GetConfigurationItem(ctx, "settings", "colour")
		if err != nil {
			return fmt.Errorf("get configuration: %w", err)
		}
		if item.Value == "last" {
			break
		}
	}
	seen["more"] = len(told)
	_, err = client.GetConfigurationItem(ctx, "ghost", "colour")
	seen["noConfigurationStore"] = fmt.Sprint(err)
	return nil
}
