// @ts-check
/**
 * What the page says, in each of its languages, and which of them a browser gets. It knows no DOM.
 */

/**
 * @typedef {object} Strings
 * @property {string} room
 * @property {string} count what the number is called aloud
 * @property {string} plus
 * @property {string} minus
 * @property {(count: number) => string} users the first number in it is the count
 * @property {string} connecting
 * @property {string} live
 * @property {string} reconnecting
 * @property {(seconds: number) => string} waiting
 * @property {string} offline
 * @property {string} closed
 * @property {string} stale where a number is shown that may have changed since
 * @property {string} unreached where none has been shown yet
 * @property {Record<number, string>} ended by close code; 0 for all others
 * @property {(count: number) => string} pending how many changes wait to be sent
 * @property {string} keepOpen where they would be lost with the page
 * @property {(count: number) => string} unsure how many changes may have counted or not
 * @property {string} unsureWhy
 * @property {string} resend
 * @property {string} discard
 * @property {string} tryNow
 * @property {string} again
 * @property {string} copy
 * @property {string} copied
 * @property {string} link
 * @property {string} goTo
 * @property {string} go
 * @property {string} roomExample
 * @property {string} badRoom
 * @property {Record<string, string>} errors by the server's code; where it is missing the server's own sentence is shown
 */

/** @type {Record<string, Strings>} by the value of the page's `lang` */
export const STRINGS = {
  en: {
    room: "Room",
    count: "Count",
    plus: "Add one",
    minus: "Take one away",
    users: (count) => `${count} online`,
    connecting: "Connecting…",
    live: "Live",
    reconnecting: "Reconnecting…",
    waiting: (seconds) => `Reconnecting in ${seconds} s`,
    offline: "Offline",
    closed: "Disconnected",
    stale: "Connection lost. The number may have changed.",
    unreached: "The server does not answer yet.",
    ended: {
      0: "The server ended this connection.",
      1000: "The connection was closed.",
      4401: "This room needs a valid token.",
      4403: "You are not allowed into this room.",
      4404: "This room was deleted.",
      4409: "Another window took over.",
    },
    pending: (count) => (count === 1 ? "1 change waiting to be sent" : `${count} changes waiting to be sent`),
    keepOpen: "Keep this page open until then.",
    unsure: (count) => (count === 1 ? "1 change may not have counted:" : `${count} changes may not have counted:`),
    unsureWhy: "The answer was lost, and the room can no longer tell.",
    resend: "Apply again",
    discard: "Discard",
    tryNow: "Try now",
    again: "Connect again",
    copy: "Copy link",
    copied: "Copied",
    link: "The link of this room, to copy by hand",
    goTo: "Go to another room",
    go: "Go",
    roomExample: "room-name",
    badRoom: "1 to 64 characters: letters A–Z, a–z, digits, _ and -.",
    errors: {},
  },
  "zh-Hans": {
    room: "房间",
    count: "计数",
    plus: "加一",
    minus: "减一",
    users: (count) => `${count} 人在线`,
    connecting: "正在连接…",
    live: "已连接",
    reconnecting: "正在重新连接…",
    waiting: (seconds) => `${seconds} 秒后重新连接`,
    offline: "离线",
    closed: "已断开",
    stale: "连接已中断，数字可能已经改变。",
    unreached: "服务器尚未响应。",
    ended: {
      0: "服务器已结束此连接。",
      1000: "连接已关闭。",
      4401: "此房间需要有效的令牌。",
      4403: "您无权进入此房间。",
      4404: "此房间已被删除。",
      4409: "已由另一个窗口接管。",
    },
    pending: (count) => `${count} 项更改等待发送`,
    keepOpen: "发送完成前请勿关闭此页面。",
    unsure: (count) => `${count} 项更改可能未计入：`,
    unsureWhy: "答复已丢失，房间也无法再确认。",
    resend: "再次应用",
    discard: "放弃",
    tryNow: "立即重试",
    again: "重新连接",
    copy: "复制链接",
    copied: "已复制",
    link: "此房间的链接，请手动复制",
    goTo: "前往其他房间",
    go: "前往",
    roomExample: "room-name",
    badRoom: "1 到 64 个字符：字母 A–Z、a–z、数字、_ 和 -。",
    errors: { out_of_range: "未更改：数值将超出允许的范围。" },
  },
  "zh-Hant": {
    room: "房間",
    count: "計數",
    plus: "加一",
    minus: "減一",
    users: (count) => `${count} 人在線上`,
    connecting: "連線中…",
    live: "已連線",
    reconnecting: "重新連線中…",
    waiting: (seconds) => `${seconds} 秒後重新連線`,
    offline: "離線",
    closed: "已中斷",
    stale: "連線中斷，數字可能已經改變。",
    unreached: "伺服器尚未回應。",
    ended: {
      0: "伺服器已結束此連線。",
      1000: "連線已關閉。",
      4401: "此房間需要有效的權杖。",
      4403: "您無權進入此房間。",
      4404: "此房間已被刪除。",
      4409: "已由另一個視窗接手。",
    },
    pending: (count) => `${count} 項變更等待傳送`,
    keepOpen: "傳送完成前請勿關閉此頁面。",
    unsure: (count) => `${count} 項變更可能未計入：`,
    unsureWhy: "回覆已遺失，房間也無法再確認。",
    resend: "再次套用",
    discard: "捨棄",
    tryNow: "立即重試",
    again: "重新連線",
    copy: "複製連結",
    copied: "已複製",
    link: "此房間的連結，請手動複製",
    goTo: "前往其他房間",
    go: "前往",
    roomExample: "room-name",
    badRoom: "1 到 64 個字元：字母 A–Z、a–z、數字、_ 和 -。",
    errors: { out_of_range: "未變更：數值將超出允許的範圍。" },
  },
  fr: {
    room: "Salle",
    count: "Compte",
    plus: "Ajouter un",
    minus: "Enlever un",
    users: (count) => `${count} en ligne`,
    connecting: "Connexion…",
    live: "En direct",
    reconnecting: "Reconnexion…",
    waiting: (seconds) => `Reconnexion dans ${seconds} s`,
    offline: "Hors ligne",
    closed: "Déconnecté",
    stale: "Connexion perdue. Le nombre a pu changer.",
    unreached: "Le serveur ne répond pas encore.",
    ended: {
      0: "Le serveur a mis fin à cette connexion.",
      1000: "La connexion a été fermée.",
      4401: "Cette salle exige un jeton valide.",
      4403: "Vous n’avez pas accès à cette salle.",
      4404: "Cette salle a été supprimée.",
      4409: "Une autre fenêtre a pris le relais.",
    },
    pending: (count) => (count === 1 ? "1 changement en attente d’envoi" : `${count} changements en attente d’envoi`),
    keepOpen: "Gardez cette page ouverte d’ici là.",
    unsure: (count) =>
      count === 1 ? "1 changement n’a peut-être pas compté\u00a0:" : `${count} changements n’ont peut-être pas compté\u00a0:`,
    unsureWhy: "La réponse s’est perdue, et la salle ne peut plus le dire.",
    resend: "Réappliquer",
    discard: "Abandonner",
    tryNow: "Réessayer",
    again: "Se reconnecter",
    copy: "Copier le lien",
    copied: "Copié",
    link: "Le lien de cette salle, à copier à la main",
    goTo: "Aller dans une autre salle",
    go: "Aller",
    roomExample: "nom-de-salle",
    badRoom: "De 1 à 64 caractères\u00a0: lettres A–Z, a–z, chiffres, _ et -.",
    errors: { out_of_range: "Refusé\u00a0: le nombre sortirait de la plage permise." },
  },
};

/**
 * Picks the language of the page: the first one of the reader's that it speaks, else English.
 * @param {readonly string[]} languages as in `navigator.languages`, best first
 * @returns {keyof typeof STRINGS}
 */
export function chooseLanguage(languages) {
  for (const tag of languages) {
    const [language, ...rest] = tag.toLowerCase().split(/[-_]/);
    if (language === "zh") return isTraditional(rest) ? "zh-Hant" : "zh-Hans";
    if (language === "fr" || language === "en") return language;
  }
  return "en";
}

/** @param {string[]} subtags a script, where named, says more than a region */
function isTraditional(subtags) {
  if (subtags.includes("hans")) return false;
  return ["hant", "tw", "hk", "mo"].some((subtag) => subtags.includes(subtag));
}
