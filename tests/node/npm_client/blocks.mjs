// Dapr's JavaScript SDK in gRPC mode reading secrets, encrypting, locking and following configuration: takes the node's API port. It
// prints a line whenever the settings are to be changed ("subscribing" for the key colour, until that is told; "stopped" once it
// follows no more), then one JSON object with what it saw.
import { createHash } from "node:crypto";
import { CommunicationProtocolEnum, DaprClient } from "@dapr/dapr";

const [daprPort] = process.argv.slice(2);
const client = new DaprClient({
  daprHost: "127.0.0.1",
  daprPort,
  communicationProtocol: CommunicationProtocolEnum.GRPC,
});
const seen = {};
const refusal = async (call) => {
  try {
    await call();
    return "";
  } catch (error) {
    return String(error.message ?? error);
  }
};

seen.secret = await client.secret.get("files", "plain");
seen.secrets = await client.secret.getBulk("files");
seen.denied = await refusal(() => client.secret.get("files", "private"));
seen.noSecret = await refusal(() => client.secret.get("files", "ghost"));
seen.noSecretStore = await refusal(() => client.secret.getBulk("ghost"));

const document = Buffer.from("0123456789abcdef".repeat(20_000));
seen.opened = [];
for (const options of [
  { componentName: "vault", keyName: "rsa.pem", keyWrapAlgorithm: "RSA-OAEP-256" },
  { componentName: "vault", keyName: "aes", keyWrapAlgorithm: "A256KW", dataEncryptionCipher: "chacha20-poly1305" },
]) {
  const sealed = await client.crypto.encrypt(document, options);
  if (sealed.includes(document.subarray(0, 100))) {
    throw new Error("the document is in the clear");
  }
  const opened = await client.crypto.decrypt(sealed, { componentName: "vault" });
  seen.opened.push(createHash("sha256").update(opened).digest("hex"));
  sealed[sealed.length - 1] ^= 1;
  seen.changed = await refusal(() => client.crypto.decrypt(sealed, { componentName: "vault" }));
}
seen.noKey = await refusal(() =>
  client.crypto.encrypt(document, { componentName: "vault", keyName: "ghost", keyWrapAlgorithm: "RSA" }),
);

seen.taken = [];
for (const owner of ["me", "you"]) {
  seen.taken.push((await client.lock.lock("locks", "js", owner, 60)).success);
}
seen.released = [];
for (const owner of ["you", "me", "me"]) {
  seen.released.push((await client.lock.unlock("locks", "js", owner)).status);
}
seen.noLockStore = await refusal(() => client.lock.unlock("ghost", "js", "me"));

const colour = async () => (await client.configuration.get("settings", ["colour", "ghost"])).items;
seen.items = await colour();
seen.told = [];
let tell;
const first = new Promise((resolve) => {
  tell = resolve;
});
const following = await client.configuration.subscribeWithKeys("settings", ["colour"], async ({ items }) => {
  seen.told.push(items);
  tell();
});
console.log("subscribing");
await first;
await following.stop();
const before = seen.told.length;
console.log("stopped");
while ((await colour()).colour.value !== "last");
seen.more = seen.told.length - before;
seen.noConfigurationStore = await refusal(() => client.configuration.get("ghost", ["colour"]));
await client.stop();
console.log(JSON.stringify(seen));
